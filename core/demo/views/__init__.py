"""What the demo's pages look like: functions from results to HTML, and the templates behind them."""
