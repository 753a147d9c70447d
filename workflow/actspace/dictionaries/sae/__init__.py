"""Training sparse autoencoders: architectures differ in encoder and loss, the loop is one."""
