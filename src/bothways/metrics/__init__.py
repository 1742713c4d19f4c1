"""The scores that each field trusts: one file a kind of task, all functions of gold and predicted values.

| file | scores |
|---|---|
| classes | accuracy, macro F1, PR-AUC; several labels; pairs with F1 and MCC; confusion matrix |
| spans | strict entity F1 as seqeval, semantic roles as srl-eval.pl, slots and intents |
| segmentation | word F1 by spans and as the SIGHAN-2005 script, recall of unknown words |
| similarity | Pearson's and Spearman's correlation |
| questions | exact match and F1 as SQuAD 1.1, 2.0, CMRC2018 and DRCD |
| overlap | sacreBLEU, chrF, ROUGE, distinct n-grams |
| clusters | NMI, ARI, V-measure, accuracy by matching |
| retrieval | nDCG, MRR, recall, MAP as trec_eval |
| bootstrap | paired bootstrap of two systems, mean and deviation over seeds |
"""
