"""What a run tells: `measure` numbers, `console` lines and progress, `table` results, `plots` pictures."""
