"""What several families of strategies are made of."""
