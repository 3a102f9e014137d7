//! Lines, right and wrong.
