"""Whole batches from one gradient, exactly: the softmax head, then layer by layer down to the pixels."""
