"""The key map: what the public checkpoints call what our networks hold.

Rules are tried in order on our own names; the public name of every tensor follows from them, so that a file can be
compared with what is wanted in the words of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Rule = tuple[str, str | Callable[["re.Match[str]"], str]]
Tensors = dict[str, torch.Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Names:
    """How one network's tensors are called in its file."""

    file: str  # stem: the public file's name with .safetensors instead of .pth or .pt
    rules: tuple[Rule, ...]
    spectral: str = "$^"  # public weights that are stored with their largest singular vectors (spectral norm)
    scaled: str = "$^"  # public weights that are stored as direction and length (weight norm), lengths along the last axis
    constants: str = "$^"  # tensors of the file that are not read: they follow from its sizes, or nothing uses them

    def public(self, name: str) -> str:
        """The public name of one of our tensors."""
        for pattern, wanted in self.rules:
            name = re.sub(pattern, wanted, name)
        return name

    def wanted(self, ours: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
        """Every tensor that the file must hold, and its shape."""
        shapes: dict[str, Shape] = {}
        for name, tensor in ours.items():
            shapes |= self._stored(self.public(name), tuple(tensor.shape))
        return shapes

    def _stored(self, name: str, shape: Shape) -> dict[str, Shape]:
        if re.search(self.spectral, name):
            rest = int(torch.Size(shape[1:]).numel())
            return {f"{name}_orig": shape, f"{name}_u": (shape[0],), f"{name}_v": (rest,)}
        if re.search(self.scaled, name):
            return {f"{name}_g": (*[1] * (len(shape) - 1), shape[-1]), f"{name}_v": shape}
        return {name: shape}

    def translated(self, found: Tensors, ours: Mapping[str, torch.Tensor]) -> Tensors:
        """The file's tensors under our names, norms of weights carried out."""
        return {name: self._read(found, self.public(name)) for name in ours}

    def _read(self, found: Tensors, name: str) -> torch.Tensor:
        if re.search(self.spectral, name):
            weight, left, right = (found[f"{name}_{part}"].double() for part in ("orig", "u", "v"))
            return weight / torch.dot(left, weight.flatten(1) @ right)
        if re.search(self.scaled, name):
            length, direction = found[f"{name}_g"].double(), found[f"{name}_v"].double()
            return direction * (length / direction.norm(dim=tuple(range(direction.ndim - 1)), keepdim=True))
        return found[name]


def _later(text: str, more: int = 1) -> Callable[[re.Match[str]], str]:
    """A replacement in which # is the first group's number and `more`."""
    return lambda match: text.replace("#", str(int(match[1]) + more))


APPEARANCE = Names(
    "appearance_feature_extractor",
    (
        (r"^stem\b", "first"),
        (r"^down\b", "down_blocks"),
        (r"^lift\b", "second"),
        (r"^blocks\.(\d+)", r"resblocks_3d.3dr\1"),
        (r"\bconv_in\b", "conv1"),
        (r"\bconv_out\b", "conv2"),
        (r"\bnorm_in\b", "norm1"),
        (r"\bnorm_middle\b", "norm2"),
    ),
)
POSE = Names(
    "motion_extractor",
    (
        (r"^stem\.", "downsample_layers.0.0."),
        (r"^stem_norm\.", "downsample_layers.0.1."),
        (r"^shrink_norms\.(\d+)", _later("downsample_layers.#.0")),
        (r"^shrinks\.(\d+)", _later("downsample_layers.#.1")),
        (r"\bmix\b", "dwconv"),
        (r"\bwiden\b", "pwconv1"),
        (r"\bnarrow\b", "pwconv2"),
        (r"\bgain$", "grn.gamma"),
        (r"\blift$", "grn.beta"),
        (r"^heads\.rest", "fc_kp"),
        (r"^heads\.size", "fc_scale"),
        (r"^heads\.shift", "fc_t"),
        (r"^heads\.expression", "fc_exp"),
        (r"^heads\.", "fc_"),
        (r"^", "detector."),
    ),
)
WARPING = Names(
    "warping_module",
    (
        (r"^field\.compress\.conv", "field.compress"),
        (r"^field\.compress\.norm", "field.norm"),
        (r"^field\.hourglass\.down", "field.hourglass.encoder.down_blocks"),
        (r"^field\.hourglass\.up", "field.hourglass.decoder.up_blocks"),
        (r"^field\.hourglass\.last", "field.hourglass.decoder"),
        (r"^field\.weigh", "field.mask"),
        (r"^field\.cover", "field.occlusion"),
        (r"^field", "dense_motion_network"),
        (r"^join", "third"),
        (r"^mix", "fourth"),
    ),
)
GENERATOR = Names(
    "spade_generator",
    (
        (r"^enter\b", "fc"),
        (r"^leave\b", "conv_img.0"),
        (r"^middle\.(\d+)", r"G_middle_\1"),
        (r"^grow\.(\d+)", r"up_\1"),
        (r"\bconv_in\b", "conv_0"),
        (r"\bconv_out\b", "conv_1"),
        (r"\bconv_skip\b", "conv_s"),
        (r"\bnorms\.first\b", "norm_0"),
        (r"\bnorms\.second\b", "norm_1"),
        (r"\bnorms\.skip\b", "norm_s"),
        (r"\bshared\b", "mlp_shared.0"),
        (r"\bgain\b", "mlp_gamma"),
        (r"\boffset\b", "mlp_beta"),
    ),
    spectral=r"\bconv_[01s]\.weight$",
)
STITCHING = Names(
    "stitching_retargeting_module",
    ((r"^stitch\b", "retarget_shoulder.mlp"), (r"^lips\b", "retarget_mouth.mlp"), (r"^eyes\b", "retarget_eye.mlp")),
    constants=r"^(?!retarget_(shoulder|mouth|eye)\.)",  # the public file is larger than its three nets
)
MOTION = Names(
    "motion_generator",
    (
        (r"^speech\.waves\.(\d+)", r"audio_encoder.feature_extractor.conv_layers.\1.conv"),
        (r"^speech\.wave_norm", "audio_encoder.feature_extractor.conv_layers.0.layer_norm"),
        (r"^speech\.enter_norm", "audio_encoder.feature_projection.layer_norm"),
        (r"^speech\.enter\b", "audio_encoder.feature_projection.projection"),
        (r"^speech\.where", "audio_encoder.encoder.pos_conv_embed.conv"),
        (r"^speech\.norm\b", "audio_encoder.encoder.layer_norm"),
        (r"^speech\.", "audio_encoder.encoder."),
        (r"\battend\.ask\b", "attention.q_proj"),
        (r"\battend\.offer\b", "attention.k_proj"),
        (r"\battend\.say\b", "attention.v_proj"),
        (r"^(audio_encoder.*)\battend\.leave\b", r"\1attention.out_proj"),
        (r"\bnorm_attend\b", "layer_norm"),
        (r"\bnorm_out\b", "final_layer_norm"),
        (r"^(audio_encoder.*)\bwiden\b", r"\1feed_forward.intermediate_dense"),
        (r"^(audio_encoder.*)\bnarrow\b", r"\1feed_forward.output_dense"),
        (r"^sound\b", "audio_feature_map"),
        (r"^first_motion$", "start_motion_feat"),
        (r"^first_sound$", "start_audio_feat"),
        (r"^no_sound$", "null_audio_feat"),
        (r"^step\b", "denoising_net.diff_step_map"),
        (r"^enter\b", "denoising_net.feature_proj"),
        (r"^leave\b", "denoising_net.motion_dec"),
        (r"^layers\b", "denoising_net.transformer.layers"),
        (r"\battend\.enter\.", "self_attn.in_proj_"),
        (r"\battend\.leave\b", "self_attn.out_proj"),
        (r"\bhear\.enter\.", "multihead_attn.in_proj_"),
        (r"\bhear\.leave\b", "multihead_attn.out_proj"),
        (r"\bwiden\b", "linear1"),
        (r"\bnarrow\b", "linear2"),
        (r"\bnorms\.(\d+)", _later("norm#")),
    ),
    scaled=r"pos_conv_embed\.conv\.weight$",
    constants=r"^audio_encoder\.masked_spec_embed$|^denoising_net\.([TP]E\.pe|alignment_mask)$|^diffusion_sched\.",
)
