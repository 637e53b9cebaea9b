"""How the models in ``models/`` were made. Nearly every module is a command, and says in its docstring how to run it.

::

    data       fer2013.csv (+ fer2013new.csv) -> arrays; class counts and samples as pictures
    duplicates which faces are the same picture
    augment    what a batch goes through before the net sees it
    model      the net that is shipped
    bodies     nets of other kinds, for teachers
    pretrained dlib's face recognition net, which a teacher begins as
    objective  what is minimised
    recipe     every number of a training run, in one TOML file
    setup      what a training begins with: device, faces, first weights
    loop       the loop itself, on a CPU or a GPU
    train      data + recipe -> a checkpoint, and a loss for every sample
    campaign   data + many recipes -> as many nets as a time allows
    results    what a campaign leaves, in files of limited size
    distill    what teachers and voters say of each face -> soft targets for another training
    publish    a campaign's results -> soft targets, or model files and every figure that is told of them
    card       the figures in the model card and the documents, measured anew
    doubtful   those losses -> the labels most likely to be wrong
    export     a checkpoint -> a calibrated ONNX file, checked against torch
    evaluate   an ONNX file -> figures and pictures
    corrupt    what a camera does to faces, for the evaluation
    sequences  synthetic tracks whose truth is known
    smoothing  which smoother makes the best events of a model's scores
    clips      what models make of real faces in video
    crop       how FER2013's frame lies relative to a detector's box
    mtcnn      facenet-pytorch's detector -> ONNX
    manifest   the digests that fer_stream checks model files against
"""
