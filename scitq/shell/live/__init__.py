"""Views that go on while things happen: `top` of workers and what they run, `watch` of any command, `tail` of several tasks."""
