"""From a folder of identities to batches of standardised images, and from a pairs file to pairs."""
