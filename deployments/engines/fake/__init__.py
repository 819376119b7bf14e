"""A real engine without a face: it paints a patch whose colour is a function of the motion. For tests."""
