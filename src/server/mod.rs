//! What the server on `node:http` has done off the event loop: a request body is read, an answer is written.

pub mod request;
pub mod response;
