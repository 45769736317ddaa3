"""OTP pg and syn: process groups and registries shared with the other nodes. Layer: groups."""
