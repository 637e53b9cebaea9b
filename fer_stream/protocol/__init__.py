"""What travels between processes: messages, frames in shared memory, and the pace of a slow link."""
