//! Money: integer nano-USD, the price book, and what a usage costs.

pub mod cost;
pub mod nano;
pub mod price;
