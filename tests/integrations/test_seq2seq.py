"""`Seq2SeqTrainer`, which generates while it evaluates: the fed loss is the objective, in every way in."""

from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

from tests.integrations.tiny_text import examples, make_seq2seq_model


def test_fed_loss_is_the_objective_of_seq2seq(build, options, tokenizer, check):
    model = make_seq2seq_model()
    rows = [dict(tokenizer(row["prompt"], text_target=row["prompt"] + row["chosen"])) for row in examples()]
    for row in rows:
        row.pop("token_type_ids", None)
    trainer = build(
        Seq2SeqTrainer,
        model=model,
        args=Seq2SeqTrainingArguments(
            **options, label_smoothing_factor=0.1, predict_with_generate=True, eval_strategy="epoch"
        ),
        train_dataset=rows,
        eval_dataset=rows[:2],
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
    )
    check(trainer)
    assert any("eval_loss" in log for log in trainer.state.log_history)
