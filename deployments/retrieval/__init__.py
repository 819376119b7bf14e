"""What the template showed, looked up by mouth shape: shared by every engine that starts from retrieved pictures."""
