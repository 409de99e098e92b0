//! An OSTree tree in memory: union with whiteouts, path look-up, write-out.
