"""What the tabs of the demo compute and show: functions that a test calls without a browser."""
