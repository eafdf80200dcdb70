//! Merging, again and again.
