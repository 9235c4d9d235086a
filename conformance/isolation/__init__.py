"""The target in a process of its own: how it is started, asked, watched and ended."""
