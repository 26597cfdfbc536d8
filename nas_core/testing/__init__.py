"""Contract suites: functions that yield what is wrong with a space, strategy, evaluator or store."""
