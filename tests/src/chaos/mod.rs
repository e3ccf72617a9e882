//! A TCP proxy between two processes that injects faults on command: [`ChaosProxy`] forwards
//! connections, `fault` decides which requests or replies it mistreats.

mod fault;
mod proxy;

pub use self::proxy::ChaosProxy;
