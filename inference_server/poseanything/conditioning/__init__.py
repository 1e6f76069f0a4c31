"""What a clip is made from: pictures, poses, parts and prompts, and the files they are read from."""
