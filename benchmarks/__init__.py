"Everything a user waits for, beside what they would install instead."
topics = 'start reading preprocess encode decode decoder losses training many_runs evolve saliency crf metrics memory scaling'.split()
