//! Simulations as a whole.
