"""Records, corpora, masking, packing: from files to packed batches."""
