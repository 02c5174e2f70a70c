"""The stream: micro-batches bring read models to the head of the log; a copy is published every few seconds."""
