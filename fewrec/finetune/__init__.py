"""Fine-tuning a pretrained encoder on two files of ratings, the tutorial case of the field: ``fewrec finetune``.

Apart from the learners because there are no episodes: one model, one training set, one test set. What a learner of the
benchmark does with text is under ``fewrec.learners``.
"""
