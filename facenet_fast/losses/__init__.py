"""What training minimises: one file a loss; import the file you need, since each needs TensorFlow."""
