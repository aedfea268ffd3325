"""The bibliography: what to cite for each method, by key."""

from typing import Protocol

REFERENCES: dict[str, str] = {
    "dlg": """@inproceedings{zhu2019deep,
  title     = {Deep Leakage from Gradients},
  author    = {Zhu, Ligeng and Liu, Zhijian and Han, Song},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  year      = {2019}
}""",
    "idlg": """@article{zhao2020idlg,
  title   = {{iDLG}: Improved Deep Leakage from Gradients},
  author  = {Zhao, Bo and Mopuri, Konda Reddy and Bilen, Hakan},
  journal = {arXiv preprint arXiv:2001.02610},
  year    = {2020}
}""",
    "inverting_gradients": """@inproceedings{geiping2020inverting,
  title     = {Inverting Gradients -- How Easy Is It to Break Privacy in Federated Learning?},
  author    = {Geiping, Jonas and Bauermeister, Hartmut and Dr{\\"o}ge, Hannah and Moeller, Michael},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020}
}""",
    "cpl": """@inproceedings{wei2020framework,
  title     = {A Framework for Evaluating Client Privacy Leakages in Federated Learning},
  author    = {Wei, Wenqi and Liu, Ling and Loper, Margaret and Chow, Ka-Ho and Gursoy, Mehmet Emre
               and Truex, Stacey and Wu, Yanzhao},
  booktitle = {European Symposium on Research in Computer Security (ESORICS)},
  year      = {2020}
}""",
    "bias": """@article{phong2018privacy,
  title   = {Privacy-Preserving Deep Learning via Additively Homomorphic Encryption},
  author  = {Phong, Le Trieu and Aono, Yoshinori and Hayashi, Takuya and Wang, Lihua and Moriai, Shiho},
  journal = {IEEE Transactions on Information Forensics and Security},
  volume  = {13},
  number  = {5},
  pages   = {1333--1345},
  year    = {2018}
}""",
    "r_gap": """@inproceedings{zhu2021rgap,
  title     = {{R-GAP}: Recursive Gradient Attack on Privacy},
  author    = {Zhu, Junyi and Blaschko, Matthew B.},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}""",
    "ssras": """@article{ssras2022,
  author  = {{Hainan University} and others},
  note    = {The authors' names are at the DOI},
  title   = {Recover User's Private Training Image Data by Gradient in Federated Learning},
  journal = {Sensors},
  volume  = {22},
  number  = {19},
  pages   = {7157},
  year    = {2022},
  doi     = {10.3390/s22197157}
}""",
    "spear": """@inproceedings{dimitrov2024spear,
  title     = {{SPEAR}: Exact Gradient Inversion of Batches in Federated Learning},
  author    = {Dimitrov, Dimitar I. and Baader, Maximilian and M{\\"u}ller, Mark Niklas and Vechev, Martin},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024}
}""",
    "gdl": """@article{geng2021towards,
  title   = {Towards General Deep Leakage in Federated Learning},
  author  = {Geng, Jiahui and Mou, Yongli and Li, Feifei and Li, Qing and Beyan, Oya and Decker, Stefan
             and Rong, Chunming},
  journal = {arXiv preprint arXiv:2110.09074},
  year    = {2021}
}""",
    "gradinversion": """@inproceedings{yin2021see,
  title     = {See through Gradients: Image Batch Recovery via {GradInversion}},
  author    = {Yin, Hongxu and Mallya, Arun and Vahdat, Arash and Alvarez, Jose M. and Kautz, Jan
               and Molchanov, Pavlo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021}
}""",
    "feedback_blending": """@article{leite2024federated,
  title   = {Federated Learning under Attack: Improving Gradient Inversion for Batch of Images},
  author  = {Leite, Luiz and Santo, Yuri and Dalmazo, Bruno L. and Riker, Andr{\\'e}},
  journal = {arXiv preprint arXiv:2409.17767},
  year    = {2024}
}""",
    "fedavg_leakage": """@article{dimitrov2022data,
  title   = {Data Leakage in Federated Averaging},
  author  = {Dimitrov, Dimitar I. and Balunovi{\\'c}, Mislav and Konstantinov, Nikola and Vechev, Martin},
  journal = {Transactions on Machine Learning Research},
  year    = {2022}
}""",
    "dp_sgd": """@inproceedings{abadi2016deep,
  title     = {Deep Learning with Differential Privacy},
  author    = {Abadi, Mart{\\'i}n and Chu, Andy and Goodfellow, Ian and McMahan, H. Brendan and Mironov, Ilya
               and Talwar, Kunal and Zhang, Li},
  booktitle = {ACM SIGSAC Conference on Computer and Communications Security},
  year      = {2016}
}""",
    "deep_gradient_compression": """@inproceedings{lin2018deep,
  title     = {Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training},
  author    = {Lin, Yujun and Han, Song and Mao, Huizi and Wang, Yu and Dally, William J.},
  booktitle = {International Conference on Learning Representations},
  year      = {2018}
}""",
    "signsgd": """@inproceedings{bernstein2018signsgd,
  title     = {{signSGD}: Compressed Optimisation for Non-Convex Problems},
  author    = {Bernstein, Jeremy and Wang, Yu-Xiang and Azizzadenesheli, Kamyar and Anandkumar, Animashree},
  booktitle = {International Conference on Machine Learning},
  year      = {2018}
}""",
    "mixup": """@inproceedings{zhang2018mixup,
  title     = {mixup: Beyond Empirical Risk Minimization},
  author    = {Zhang, Hongyi and Cisse, Moustapha and Dauphin, Yann N. and Lopez-Paz, David},
  booktitle = {International Conference on Learning Representations},
  year      = {2018}
}""",
    "soteria": """@inproceedings{sun2021soteria,
  title     = {Soteria: Provable Defense against Privacy Leakage in Federated Learning from Representation
               Perspective},
  author    = {Sun, Jingwei and Li, Ang and Wang, Binghui and Yang, Huanrui and Li, Hai and Chen, Yiran},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021}
}""",
    "dropout": """@article{zheng2021dropout,
  title   = {Dropout against Deep Leakage from Gradients},
  author  = {Zheng, Yanchong},
  journal = {arXiv preprint arXiv:2108.11106},
  year    = {2021}
}""",
    "dropout_inversion": """@article{scheliga2022dropout,
  title   = {Dropout is {NOT} All You Need to Prevent Gradient Leakage},
  author  = {Scheliga, Daniel and M{\\"a}der, Patrick and Seeland, Marco},
  journal = {arXiv preprint arXiv:2208.06163},
  year    = {2022}
}""",
    "masking": """@article{kim2024random,
  title   = {Random Gradient Masking as a Defensive Measure to Deep Leakage in Federated Learning},
  author  = {Kim, Joon and Park, Sejin},
  journal = {arXiv preprint arXiv:2408.08430},
  year    = {2024}
}""",
    "dager": """@inproceedings{petrov2024dager,
  title     = {{DAGER}: Exact Gradient Inversion for Large Language Models},
  author    = {Petrov, Ivo and Dimitrov, Dimitar I. and Baader, Maximilian and M{\\"u}ller, Mark Niklas
               and Vechev, Martin},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024}
}""",
    "tag": """@inproceedings{deng2021tag,
  title     = {{TAG}: Gradient Attack on Transformer-Based Language Models},
  author    = {Deng, Jieren and Wang, Yijue and Li, Ji and Wang, Chenghong and Shang, Chao and Liu, Hang
               and Rajasekaran, Sanguthevar and Ding, Caiwen},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2021},
  year      = {2021}
}""",
    "lamp": """@inproceedings{balunovic2022lamp,
  title     = {{LAMP}: Extracting Text from Gradients with Language Model Priors},
  author    = {Balunovi{\\'c}, Mislav and Dimitrov, Dimitar I. and Jovanovi{\\'c}, Nikola and Vechev, Martin},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {35},
  year      = {2022}
}""",
    "lbfgs": """@article{byrd1994representations,
  title   = {Representations of Quasi-{N}ewton Matrices and Their Use in Limited Memory Methods},
  author  = {Byrd, Richard H. and Nocedal, Jorge and Schnabel, Robert B.},
  journal = {Mathematical Programming},
  volume  = {63},
  pages   = {129--156},
  year    = {1994}
}""",
    "adam": """@inproceedings{kingma2015adam,
  title     = {Adam: A Method for Stochastic Optimization},
  author    = {Kingma, Diederik P. and Ba, Jimmy},
  booktitle = {International Conference on Learning Representations},
  year      = {2015}
}""",
}


class Citable(Protocol):
    @property
    def citations(self) -> tuple[str, ...]: ...


def cite(*methods: Citable) -> str:
    """BibTeX of everything that attacks, or other methods, are made of: ``cite(gl.attacks.dlg())``."""
    keys = (key for method in methods for key in method.citations)
    return "\n\n".join(REFERENCES[key] for key in dict.fromkeys(keys))
