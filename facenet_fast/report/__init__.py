"""What is told: `measure` numbers, `console` progress, `table` results, `plots` pictures, `page` a report."""
