"""The stream: micro-batches that bring read models to the head of the log, published now and then."""
