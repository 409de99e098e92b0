//! One file per verb: plan (pure) -> prepare (invisible) -> publish (one atomic step) -> outcome.
