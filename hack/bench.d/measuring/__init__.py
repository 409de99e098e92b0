"""What `hack/bench import` is made of: one subject a file, the cases in `cases`."""
