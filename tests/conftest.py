"""What every test has."""

import pytest

pytest.register_assert_rewrite("hostile", "refusals", "testhost")  # their assertions say what they compared, as a test's do
