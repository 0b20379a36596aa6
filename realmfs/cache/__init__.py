"""What is on this disk: objects, directories, container files, the modify log."""
