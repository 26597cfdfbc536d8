"""Networks with a slot where a layer is to be tried."""
