"""The parts of DriverContract: what every backend must do, each part one subject.

Tests for authors of backends, over the public API and a simulated host. hostdev's own tests stand in
tests/.
"""
