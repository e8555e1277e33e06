//! Puts the agent into a running process and leaves the process as it was.
