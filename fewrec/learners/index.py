"""What comes with fewrec, as data: apart from the registry and the classes so that listing learners imports none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearnerInfo:
    """What is known of a learner before it is imported.

    ``target`` is ``module:Class``. ``needs`` and ``paper`` are those of the class, as far as they can be read without
    importing it. ``problem`` says in one line why a learner can't be used.
    """

    name: str
    target: str
    summary: str
    needs: frozenset[str] = frozenset()
    paper: str = ""
    origin: str = "built-in"
    problem: str | None = None


_KBV = "Koren, Bell & Volinsky, IEEE Computer 2009"
_BERT = "Devlin et al., NAACL 2019; Kumar et al., ICLR 2022"
_PROMPT = "Lester, Al-Rfou & Constant, EMNLP 2021; Li & Liang, ACL 2021"

# name, module:Class below fewrec.learners, summary, needs (separated by spaces), paper
_ROWS = [
    ("global-mean", "trivial:GlobalMean", "the mean rating of meta-train", "", ""),
    ("user-mean", "trivial:UserMean", "the support mean, shrunk towards the global mean", "", ""),
    ("user-median", "trivial:UserMedian", "the support median", "k>0", ""),
    ("item-mean", "trivial:ItemMean", "the item's mean in meta-train, shrunk", "", ""),
    ("item-popularity", "trivial:ItemPopularity", "ranks by the number of meta-train ratings", "", ""),
    ("random", "trivial:RandomRating", "a rating drawn from meta-train's ratings", "", ""),
    ("bias", "bias:Bias", "global + item + user effect, shrunk", "", _KBV),
    ("bias-shots", "bias:BiasShots", "bias that uses the protocol's ratings of unseen items", "item_ratings", _KBV),
    ("mf-scratch", "mf_scratch:MFScratch", "matrix factorization trained on the support alone", "k>0", _KBV),
    ("mf-foldin", "mf_foldin:MFFoldIn", "matrix factorization of meta-train, new user solved by ridge", "",
     f"Zhou et al., AAIM 2008; {_KBV}"),
    ("knn", "knn:KNN", "bias and the residuals of similar meta-train users", "",
     "Herlocker et al., SIGIR 1999; Koren, KDD 2008"),
    ("proto", "proto:Proto", "prototypes of meta-train users, assigned softly", "",
     "Snell, Swersky & Zemel, NeurIPS 2017"),
    ("gp", "gp:GP", "Gaussian process, low-rank covariance fitted on meta-train, exact posterior", "",
     "Rasmussen & Williams, MIT Press 2006; Lawrence & Urtasun, ICML 2009"),
    ("hybrid-gp", "hybrid_gp:HybridGP", "gp whose items are what their texts say until their ratings say otherwise",
     "item_text", "Lawrence & Urtasun, ICML 2009; Agarwal & Chen, KDD 2009"),
    ("maml-mf", "meta_mf:MAMLMF", "second-order MAML over matrix factorization", "",
     "Finn, Abbeel & Levine, ICML 2017"),
    ("fomaml-mf", "meta_mf:FOMAMLMF", "first-order MAML over matrix factorization", "",
     "Finn, Abbeel & Levine, ICML 2017"),
    ("anil-mf", "meta_mf:ANILMF", "MAML whose inner loop adapts the user alone", "", "Raghu et al., ICLR 2020"),
    ("reptile-mf", "meta_mf:ReptileMF", "Reptile over matrix factorization", "",
     "Nichol, Achiam & Schulman, arXiv 1803.02999, 2018"),
    ("meta-sgd-mf", "meta_mf:MetaSGDMF", "MAML with learned inner rates", "", "Li et al., arXiv 1707.09835, 2017"),
    ("melu", "melu:MeLU", "content and id embeddings, decision layers adapted to a user", "", "Lee et al., KDD 2019"),
    ("mamo", "mamo:MAMO", "memories personalise the start of the inner loop", "", "Dong et al., KDD 2020"),
    ("tanp", "tanp:TaNP", "task-adaptive neural process", "", "Lin et al., WWW 2021"),
    ("lwa", "lwa:LWA", "a linear score's weights from the support's class means", "", "Vartak et al., NeurIPS 2017"),
    ("nlba", "lwa:NLBA", "a network's biases from the support's class means", "", "Vartak et al., NeurIPS 2017"),
    ("metaemb", "metaemb:MetaEmb", "a new item's embedding from attributes, warmed up", "item_ratings",
     "Pan et al., SIGIR 2019"),
    ("mwuf", "mwuf:MWUF", "a new item's embedding scaled and shifted by networks", "item_ratings",
     "Zhu et al., SIGIR 2021"),
    ("maml-mf-l2l", "l2l:MAMLMFL2L", "maml-mf through learn2learn's wrapper: the same numbers, one by one", "",
     "Finn, Abbeel & Levine, ICML 2017"),
    ("embed-ridge", "embed_ridge:EmbedRidge", "frozen text embeddings, ridge over an item prior of meta-train",
     "item_text", "Hoerl & Kennard, Technometrics 1970; Reimers & Gurevych, EMNLP 2019"),
    ("bert-finetune", "bert:BertFinetune", "pretrained encoder + head, fine-tuned on the support", "item_text k>0",
     _BERT),
    ("bert-meta", "bert:BertMeta", "bert-finetune, first fine-tuned on meta-train", "item_text", _BERT),
    ("prompt-lm", "prompt:PromptLM", "frozen language model, soft prompt + head trained on the support",
     "item_text k>0", _PROMPT),
    ("prompt-lm-meta", "prompt:PromptLMMeta", "prompt-lm, prompt and head initialised on meta-train", "item_text",
     _PROMPT),
    ("maml-lm", "maml_lm:MAMLLM", "MAML over a language model: a user's head or soft prompt by inner steps",
     "item_text",
     "Finn, Abbeel & Levine, ICML 2017; Raghu et al., ICLR 2020; Hou et al., COLING 2022"),
    ("icl-lm", "icl:InContextLM", "frozen language model reads the user's ratings in its prompt", "item_text",
     "Brown et al., NeurIPS 2020; Kang et al., arXiv 2305.06474, 2023"),
]  # fmt: skip

BUILTIN: dict[str, LearnerInfo] = {
    name: LearnerInfo(name, f"fewrec.learners.{target}", summary, frozenset(needs.split()), paper)
    for name, target, summary, needs, paper in _ROWS
}
"""The built-in learners by name, in the order of listings; tested to agree with the classes."""
