"""Attention, encoder, heads: functions of tensors, equal to the released BERT."""
