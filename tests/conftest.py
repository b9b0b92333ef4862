"""What every test has."""

import pytest

pytest.register_assert_rewrite("hostile", "testhost")  # their assertions say what they compared, as a test's do
