# What a kernel that writes rows raises for a value.

class EncodeError(ValueError):
    """A value does not fit its target. ``row`` counts from 0 in the batch, ``column`` in the row."""

    def __init__(self, row, column, reason):
        super().__init__(f"row {row}, column {column}: {reason}")
        self.row = row
        self.column = column
        self.reason = reason

    def __reduce__(self):
        return EncodeError, (self.row, self.column, self.reason)
