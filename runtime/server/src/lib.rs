//! The parts of the `gristmill` binary.

pub mod cli;
pub mod config;
pub mod http;
pub mod routing;
