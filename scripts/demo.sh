#!/bin/sh
# The main job on the user's video, or on the public-domain portrait that scikit-image ships.
# TEXT, VIDEO, SPEECH, IMAGE, OUT and BIN come from the Makefile.
set -eu
mkdir -p "$OUT"
"$BIN/lipsync" weights pull

if [ -n "$SPEECH" ]; then
    set -- --audio "$SPEECH"
else
    set -- --text "$TEXT"
fi

result="$OUT/demo.mp4"
if [ -n "$VIDEO" ]; then
    "$BIN/lipsync" sync "$VIDEO" "$@" --out "$result"
else
    if [ -z "$IMAGE" ]; then
        IMAGE="$OUT/astronaut.png"
        "$BIN/python" -c "import sys; from skimage import data, io; io.imsave(sys.argv[1], data.astronaut())" "$IMAGE"
    fi
    "$BIN/lipsync" portrait "$IMAGE" "$@" --out "$result"
fi
echo
echo "The result lies in $result"
