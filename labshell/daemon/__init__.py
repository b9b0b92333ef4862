"""labshelld: its sockets, and the two Varlink interfaces behind them."""
