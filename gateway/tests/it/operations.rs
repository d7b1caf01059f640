//! Running a node: its exit codes and signals, who gets in, what it serves besides clients, and what
//! it says about itself.

mod access;
mod drain;
mod exit;
mod gauges;
mod limits;
mod pages;
mod proxy;
mod settings;
