"""Files in, pictures and sound out, and back again. The only room that imports PyAV."""
