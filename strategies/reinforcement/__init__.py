"""Controllers that write architectures, trained by policy gradients."""
