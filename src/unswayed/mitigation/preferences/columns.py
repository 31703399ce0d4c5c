"""Columns of the stages' files, each with `dropped` on top, and of the pairs that come of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

TEXT, NUMBER = pa.string(), pa.float64()
QUESTION = {"question_id": TEXT, "category": TEXT, "question": TEXT, "answer": TEXT}
QUESTION |= {"aliases": pa.list_(TEXT), "numeric": pa.bool_()}
PROMPT = QUESTION | {"source": TEXT, "persona_id": TEXT, "pair_id": TEXT, "condition": TEXT}
PROMPT |= {"memory": TEXT}
CANDIDATE = PROMPT | {"kind": TEXT, "candidate": TEXT}
JUDGED = CANDIDATE | {"judge": TEXT, "correct": pa.bool_(), "biased": pa.bool_()}
JUDGED |= {"states_irrelevance": pa.bool_(), "reasons": pa.list_(TEXT), "role": TEXT}
PAIR = PROMPT | {"chosen_kind": TEXT, "chosen": TEXT, "rejected_kind": TEXT, "rejected": TEXT}
REWARDED = PAIR | {"reward": TEXT, "chosen_reward": NUMBER, "rejected_reward": NUMBER}
CLEAN = REWARDED | {"shared_words": pa.int32(), "shared_item": TEXT, "similarity": NUMBER}
CLEAN |= {"shared_run": TEXT, "similar_item": TEXT, "tokens": pa.int32()}

# What trl's DPOTrainer reads, then what it leaves alone.
MESSAGES = pa.list_(pa.struct({"role": TEXT, "content": TEXT}))
TRAINING = {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}
TRAINING |= {"question_id": TEXT, "category": TEXT, "reference": TEXT, "source": TEXT}
TRAINING |= {"persona_id": TEXT, "pair_id": TEXT, "condition": TEXT, "chosen_kind": TEXT}
TRAINING |= {"rejected_kind": TEXT, "reward": TEXT, "chosen_reward": NUMBER}
TRAINING |= {"rejected_reward": NUMBER, "shared_words": pa.int32(), "similarity": NUMBER}
TRAINING |= {"tokens": pa.int32()}

Row = dict[str, Any]
