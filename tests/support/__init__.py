"""What the tests share: the namespace they run in, a daemon of their own, the search for leftovers."""
