"""One file for what axes pass through: which map lets them grow."""
