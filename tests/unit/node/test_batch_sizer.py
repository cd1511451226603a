from fallow.node.batch_sizer import GROWTH, MAX_TASKS, TARGET_BYTES, TARGET_S, BatchSizer


def fed(task_s, batches, *, result_bytes=0, reduces=False):
    sizer = BatchSizer(reduces=reduces)
    for at in range(batches):
        count = sizer.count()
        sizer.note(count, count * task_s, count * result_bytes, is_first=at == 0)
    return sizer


def test_the_first_batch_is_one_task():
    assert BatchSizer(reduces=False).count() == 1


def test_growth_is_bounded():
    assert fed(1e-7, 1).count() == GROWTH
    assert fed(1e-9, 20).count() <= MAX_TASKS


def test_batches_come_to_the_target():
    count = fed(1e-5, 20).count()
    assert 0.5 * TARGET_S <= count * 1e-5 <= TARGET_S * 1.01


def test_long_tasks_go_alone_and_never_early():
    sizer = fed(0.1, 5)
    assert sizer.count() == 1
    assert not sizer.may_send_early()


def test_short_tasks_are_sent_early():
    assert fed(1e-4, 10).may_send_early()
    assert not BatchSizer(reduces=False).may_send_early()


def test_one_long_task_stops_sending_early_for_a_while():
    sizer = fed(1e-4, 10)
    sizer.note(10, 2.0, 0, is_first=False)
    assert not sizer.may_send_early()
    assert sizer.count() == 1
    for _ in range(60):
        sizer.note(10, 1e-3, 0, is_first=False)
    assert sizer.may_send_early()


def test_the_first_batch_in_a_slot_is_not_held_against_a_job():
    sizer = BatchSizer(reduces=False)
    sizer.note(1, 3.0, 0, is_first=True)
    sizer.note(1, 1e-5, 0, is_first=False)
    assert sizer.count() == GROWTH


def test_large_results_make_small_batches():
    assert fed(1e-6, 20, result_bytes=100_000).count() <= TARGET_BYTES / 100_000


def test_folds_take_longer_batches():
    assert fed(1e-5, 20, reduces=True).count() > 5 * fed(1e-5, 20).count()


def test_programs_go_singly_and_the_next_is_sent_early_while_they_are_short():
    sizer = BatchSizer(reduces=False, singly=True)
    for _ in range(5):
        sizer.note(1, 0.004, 300, is_first=False)
    assert sizer.count() == 1
    assert sizer.may_send_early()
    for _ in range(20):
        sizer.note(1, 0.1, 300, is_first=False)
    assert sizer.count() == 1
    assert not sizer.may_send_early()
